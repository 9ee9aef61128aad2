// java Ask.java ROOT: asks with the JDK's own HttpClient at its defaults; the lines are those of ask.py.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.stream.Collectors;

public class Ask {
  public static void main(String[] arguments) throws Exception {
    HttpClient client = HttpClient.newHttpClient();
    System.out.println("{\"text\": \"started\"}");
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line; (line = lines.readLine()) != null; ) {
      String body = "{\"model\":\"m1\",\"messages\":[],\"stream\":" + line.equals("stream") + "}";
      HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0] + "/v1/chat/completions"))
          .header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body)).build();
      try {
        HttpResponse<java.util.stream.Stream<String>> got = client.send(request, HttpResponse.BodyHandlers.ofLines());
        String raw = got.body().collect(Collectors.joining("\n"));
        System.out.printf("{\"raw\": \"%s\", \"status\": %d}%n", quoted(raw), got.statusCode());
      } catch (Exception error) {
        StringBuilder says = new StringBuilder();
        for (Throwable one = error; one != null; one = one.getCause()) says.append(one).append(" < ");
        System.out.printf("{\"error\": \"%s\", \"says\": \"%s\"}%n", error.getClass().getSimpleName(), quoted(says.toString()));
      }
    }
  }

  static String quoted(String text) {
    return text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t");
  }
}

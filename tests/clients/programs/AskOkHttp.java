// java -cp JARS AskOkHttp.java ROOT: asks with OkHttp at its defaults; the lines are those of ask.py.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import okhttp3.MediaType;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.RequestBody;
import okhttp3.Response;

public class AskOkHttp {
  public static void main(String[] arguments) throws Exception {
    OkHttpClient client = new OkHttpClient();
    System.out.println("{\"text\": \"started\"}");
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line; (line = lines.readLine()) != null; ) {
      String body = "{\"model\":\"m1\",\"messages\":[],\"stream\":" + line.equals("stream") + "}";
      Request request = new Request.Builder().url(arguments[0] + "/v1/chat/completions")
          .post(RequestBody.create(MediaType.parse("application/json"), body)).build();
      try (Response got = client.newCall(request).execute()) {
        String raw = got.body().string();
        System.out.printf("{\"raw\": \"%s\", \"status\": %d}%n", quoted(raw), got.code());
      } catch (Exception error) {
        StringBuilder says = new StringBuilder();
        for (Throwable one = error; one != null; one = one.getCause()) says.append(one).append(" < ");
        System.out.printf("{\"error\": \"%s\", \"says\": \"%s\"}%n", error.getClass().getSimpleName(), quoted(says.toString()));
      }
    }
    System.exit(0); // OkHttp's own threads outlive its last call by a minute
  }

  static String quoted(String text) {
    return text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t");
  }
}

// ask ROOT: asks with Go's http.DefaultClient as openai-go does; the lines are those of ask.py.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	fmt.Println(`{"text": "started"}`)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		body := fmt.Sprintf(`{"model":"m1","messages":[],"stream":%v}`, lines.Text() == "stream")
		request, _ := http.NewRequest("POST", os.Args[1]+"/v1/chat/completions", strings.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("User-Agent", "OpenAI/Go 2.7.1")
		request.Header.Set("X-Stainless-Lang", "go")
		seen := map[string]any{}
		if got, err := http.DefaultClient.Do(request); err != nil {
			seen["error"], seen["says"] = "Error", err.Error()
		} else if raw, err := io.ReadAll(got.Body); err != nil {
			seen["error"], seen["says"] = "Error", err.Error()
		} else {
			seen["raw"], seen["status"] = string(raw), got.StatusCode
		}
		line, _ := json.Marshal(seen)
		fmt.Println(string(line))
	}
}

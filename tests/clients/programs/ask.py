"""ask.py CLIENT ROOT: asks with a Python client at its defaults. One answer for each line read.

A line is `json` or `stream`; an answer is a line of JSON: the text, or the error as
the client's user sees it.
"""

import asyncio
import json
import subprocess
import sys
import urllib.request

HELLO = [{"role": "user", "content": "hi"}]
MODEL = "m1"


class Refused(Exception):
    """What a client without error classes of its own got: an error object or event, whole."""


class Exit(Exception):
    """The exit status of a program."""


def events(lines):
    """Return the text of an event stream, as a plain reader has it."""
    text, whole = "", False
    for line in lines:
        line = line if isinstance(line, str) else line.decode()
        if line.startswith("data: [DONE]"):
            whole = True
        elif line.startswith("data: "):
            event = json.loads(line[6:])
            if "error" in event:
                raise Refused(event["error"]["message"])
            text += "".join(c["delta"].get("content") or "" for c in event["choices"])
    if not whole:
        raise EOFError(f"the stream ended after {text!r}")
    return text


def answered(status, body):
    value = json.loads(body)
    if "error" in value:
        error = Refused(value["error"]["message"])
        error.status_code = status
        raise error
    return value["choices"][0]["message"]["content"]


def body(stream):
    return {"model": MODEL, "messages": HELLO, "stream": stream}


def by_openai(root):
    import openai

    client = openai.OpenAI(base_url=root + "/v1", api_key="k")

    def ask(stream):
        got = client.chat.completions.create(**body(stream))
        if not stream:
            return got.choices[0].message.content
        return "".join(c.choices[0].delta.content or "" for c in got if c.choices)

    return ask


def by_old_openai(root):
    import openai

    openai.api_base, openai.api_key = root + "/v1", "k"

    def ask(stream):
        got = openai.ChatCompletion.create(**body(stream))
        if not stream:
            return got["choices"][0]["message"]["content"]
        return "".join(c["choices"][0]["delta"].get("content", "") for c in got if c["choices"])

    return ask


def by_anthropic(root):
    import anthropic

    client = anthropic.Anthropic(base_url=root, api_key="k")

    def ask(stream):
        asked = {"model": MODEL, "max_tokens": 9, "messages": HELLO}
        if not stream:
            return client.messages.create(**asked).content[0].text
        with client.messages.stream(**asked) as got:
            return "".join(got.text_stream)

    return ask


def by_requests(root):
    import requests

    def ask(stream):
        got = requests.post(root + "/v1/chat/completions", json=body(stream), stream=stream)
        if stream and got.status_code == 200:
            return events(got.iter_lines())
        return answered(got.status_code, got.content)

    return ask


def by_httpx(root):
    import httpx

    def ask(stream):
        if not stream:
            got = httpx.post(root + "/v1/chat/completions", json=body(stream))
            return answered(got.status_code, got.content)
        with httpx.stream("POST", root + "/v1/chat/completions", json=body(stream)) as got:
            return (
                events(got.iter_lines()) if got.status_code == 200 else answered(got.status_code, got.read())
            )

    return ask


def by_aiohttp(root):
    import aiohttp

    async def one(stream):
        url = root + "/v1/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json=body(stream)) as got:
            if stream and got.status == 200:
                return events([line async for line in got.content])
            return answered(got.status, await got.read())

    return lambda stream: asyncio.run(one(stream))


def by_urllib(root):
    def ask(stream):
        data, head = json.dumps(body(stream)).encode(), {"content-type": "application/json"}
        asked = urllib.request.Request(root + "/v1/chat/completions", data, head)
        try:
            with urllib.request.urlopen(asked) as got:
                return events(got) if stream else answered(got.status, got.read())
        except urllib.error.HTTPError as error:
            return answered(error.code, error.read())

    return ask


def by_curl(root):
    def ask(stream):
        line = ["curl", "-sSN", "-w", "%{stderr}%{http_code}", root + "/v1/chat/completions"]
        done = subprocess.run([*line, "-d", json.dumps(body(stream))], capture_output=True, text=True)
        if done.returncode:
            error = Exit(f"{done.stdout[-300:]} {done.stderr}")
            error.status_code = done.returncode
            raise error
        if stream and "data: " in done.stdout:
            return events(done.stdout.splitlines())
        try:
            return answered(int(done.stderr), done.stdout)
        except ValueError as error:
            raise ValueError(done.stdout) from error

    return ask


def by_ollama(root):
    import ollama

    client = ollama.Client(host=root)

    def ask(stream):
        got = client.chat(**body(stream))
        return "".join(part.message.content for part in got) if stream else got.message.content

    return ask


def by_litellm(root):
    import litellm

    def ask(stream):
        got = litellm.completion(
            model="hosted_vllm/m1", api_base=root + "/v1", api_key="k", messages=HELLO, stream=stream
        )
        if not stream:
            return got.choices[0].message.content
        return "".join(c.choices[0].delta.content or "" for c in got if c.choices)

    return ask


def by_langchain_openai(root):
    from langchain_openai import ChatOpenAI

    return _langchain(ChatOpenAI(model=MODEL, base_url=root + "/v1", api_key="k"))


def by_langchain_anthropic(root):
    from langchain_anthropic import ChatAnthropic

    return _langchain(ChatAnthropic(model=MODEL, base_url=root, api_key="k", max_tokens=9))


def _langchain(chat):
    def text(message):
        content = message.content
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    return lambda stream: "".join(map(text, chat.stream("hi"))) if stream else text(chat.invoke("hi"))


def by_llamaindex(root):
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    chat = OpenAILike(model=MODEL, api_base=root + "/v1", api_key="k", is_chat_model=True)
    hello = [ChatMessage(role="user", content="hi")]

    def ask(stream):
        if stream:
            return "".join(part.delta or "" for part in chat.stream_chat(hello))
        return chat.chat(hello).message.content

    return ask


def by_pydantic_ai(root):
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=root + "/v1", api_key="k")
    agent = Agent(OpenAIChatModel(MODEL, provider=provider))

    async def streamed():
        async with agent.run_stream("hi") as got:
            return "".join([part async for part in got.stream_text(delta=True)])

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return lambda stream: loop.run_until_complete(streamed()) if stream else agent.run_sync("hi").output


def by_dspy(root):
    import dspy

    chat = dspy.LM("openai/m1", api_base=root + "/v1", api_key="k", cache=False)

    def ask(stream):
        [got] = chat("hi")
        return got if isinstance(got, str) else got["text"]

    return ask


def by_chromium(root):
    from playwright.sync_api import sync_playwright

    browser = (
        sync_playwright()
        .start()
        .chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
    )
    page = browser.new_page()
    page.goto(root + "/v1/models")
    fetches = """async ([path, asked]) => {
      const got = await fetch(path, {method: 'POST', body: JSON.stringify(asked)});
      return [got.status, await got.text()];
    }"""

    def ask(stream):
        status, text = page.evaluate(fetches, ["/v1/chat/completions", body(stream)])
        return events(text.splitlines()) if stream and status == 200 else answered(status, text)

    return ask


def told(error):
    """Return an error as its user sees it: its class, status and every message of its chain."""
    says, one = [], error
    while one is not None and len(says) < 9:
        says.append(f"{type(one).__name__}: {one}")
        one = one.__cause__ or one.__context__
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    status = status or getattr(response, "status_code", None)
    return {"error": type(error).__name__, "status": status, "says": " < ".join(says)[:4000]}


def main(client, root):
    ask = globals()[f"by_{client}"](root)
    print(json.dumps({"text": "started"}), flush=True)
    for line in sys.stdin:
        try:
            seen = {"text": ask(line.strip() == "stream")}
        except Exception as error:
            seen = told(error)
        print("\n" + json.dumps(seen), flush=True)


main(*sys.argv[1:])

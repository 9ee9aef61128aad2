// ask.mjs CLIENT ROOT: asks with a JavaScript client at its defaults; the lines are those of ask.py.
import readline from 'node:readline';

const [client, root] = process.argv.slice(2);
const hello = [{ role: 'user', content: 'hi' }];
const body = (stream) => ({ model: 'm1', messages: hello, stream });

class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

function answered(status, value) {
  if (status !== 200) throw new Refused(status, value.error.message);
  return value.choices[0].message.content;
}

function event(data) {
  if (data === '[DONE]') return '';
  const value = JSON.parse(data);
  if (value.error) throw new Refused(undefined, value.error.message);
  return value.choices[0]?.delta?.content ?? '';
}

const clients = {
  async openai() {
    const { default: OpenAI } = await import('openai');
    const api = new OpenAI({ baseURL: root + '/v1', apiKey: 'k' });
    return async (stream) => {
      const got = await api.chat.completions.create(body(stream));
      if (!stream) return got.choices[0].message.content;
      let text = '';
      for await (const chunk of got) text += chunk.choices[0]?.delta?.content ?? '';
      return text;
    };
  },
  async anthropic() {
    const { default: Anthropic } = await import('@anthropic-ai/sdk');
    const api = new Anthropic({ baseURL: root, apiKey: 'k' });
    const asked = { model: 'm1', max_tokens: 9, messages: hello };
    return async (stream) => {
      if (stream) return (await api.messages.stream(asked).finalMessage()).content[0].text;
      return (await api.messages.create(asked)).content[0].text;
    };
  },
  async langchain() {
    const { ChatOpenAI } = await import('@langchain/openai');
    // Its default of six retries takes minutes.
    const configuration = { baseURL: root + '/v1' };
    const chat = new ChatOpenAI({ model: 'm1', apiKey: 'k', maxRetries: 1, configuration });
    return async (stream) => {
      if (!stream) return (await chat.invoke('hi')).content;
      let text = '';
      for await (const chunk of await chat.stream('hi')) text += chunk.content;
      return text;
    };
  },
  async vercel() {
    const { generateText, streamText } = await import('ai');
    const { createOpenAICompatible } = await import('@ai-sdk/openai-compatible');
    const model = createOpenAICompatible({ name: 'p', baseURL: root + '/v1', apiKey: 'k' })('m1');
    return async (stream) => {
      if (!stream) return (await generateText({ model, prompt: 'hi' })).text;
      let text = '', failed;
      const got = streamText({ model, prompt: 'hi', onError: ({ error }) => { failed = error; } });
      for await (const part of got.textStream) text += part;
      if (failed) throw failed;
      return text;
    };
  },
  async axios() {
    const { default: axios } = await import('axios');
    return async (stream) => {
      const options = { responseType: stream ? 'stream' : 'json', validateStatus: () => true };
      const got = await axios.post(root + '/v1/chat/completions', body(stream), options);
      if (!stream) return answered(got.status, got.data);
      let data = '';
      for await (const chunk of got.data) data += chunk;
      return got.status === 200 ? events(data) : answered(got.status, JSON.parse(data));
    };
  },
  async ollama() {
    const { Ollama } = await import('ollama');
    const api = new Ollama({ host: root });
    return async (stream) => {
      const got = await api.chat(body(stream));
      if (!stream) return got.message.content;
      let text = '';
      for await (const part of got) text += part.message.content;
      return text;
    };
  },
  async fetch() {
    return async (stream) => {
      const got = await fetch(root + '/v1/chat/completions', { method: 'POST', body: JSON.stringify(body(stream)) });
      return stream && got.ok ? events(await got.text()) : answered(got.status, await got.json());
    };
  },
  async event_source() {
    globalThis.window = globalThis;
    globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
    const { fetchEventSource } = await import('@microsoft/fetch-event-source');
    return async () => {
      let text = '', failed;
      await fetchEventSource(root + '/v1/chat/completions', {
        method: 'POST', body: JSON.stringify(body(true)),
        async onopen(got) { if (!got.ok) throw new Refused(got.status, (await got.json()).error.message); },
        onmessage(message) { text += event(message.data); },
        onerror(error) { failed = error; throw error; },
      });
      if (failed) throw failed;
      return text;
    };
  },
};

function events(text) {
  const lines = text.split('\n').filter((line) => line.startsWith('data: '));
  return lines.map((line) => event(line.slice(6))).join('');
}

function told(error) {
  const says = [];
  for (let one = error; one && says.length < 9; one = one.cause ?? one.lastError) says.push(`${one.name}: ${one.message} ${one.data ?? ''}`);
  const status = error.status ?? error.statusCode ?? error.status_code ?? error.lastError?.statusCode ?? null;
  return { error: error.constructor?.name ?? 'Error', status, says: says.join(' < ').slice(0, 4000) };
}

process.on('unhandledRejection', () => {});
const ask = await clients[client]();
console.log(JSON.stringify({ text: 'started' }));
for await (const line of readline.createInterface({ input: process.stdin })) {
  let seen;
  try { seen = { text: await ask(line === 'stream') }; } catch (error) { seen = told(error); }
  console.log('\n' + JSON.stringify(seen));
}

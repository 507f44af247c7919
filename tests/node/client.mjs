// The scripted client on the official TypeScript SDK; prints what it saw as one JSON line.
//
//     node --import ./names.mjs client.mjs URL [--silence SECONDS] [--remote]
//
// With --remote it speaks over standard input and output to mcp-remote, and that speaks to the URL.
import { randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { CreateMessageRequestSchema, LoggingMessageNotificationSchema } from '@modelcontextprotocol/sdk/types.js';

const options = { silence: { type: 'string', default: '0' }, remote: { type: 'boolean', default: false } };
const { values, positionals } = parseArgs({ options, allowPositionals: true });
const url = new URL(positionals[0]);

const transcript = [];
const add = (step, result) => transcript.push({ step, result });
const told = [];
const news = new EventEmitter();

async function heard(text) {
    while (!told.includes(text)) await once(news, 'told');
}

function newClient() {
    const client = new Client({ name: 'scripted', version: '1' }, { capabilities: { sampling: {} } });
    client.setRequestHandler(CreateMessageRequestSchema, async ({ params }) => {
        const content = { type: 'text', text: `echo of ${params.messages[0].content.text}` };
        return { role: 'assistant', content, model: 'none' };
    });
    client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => {
        told.push(params.data);
        news.emit('told');
    });
    return client;
}

async function call(client, name, args, requestOptions) {
    const result = await client.callTool({ name, arguments: args }, undefined, requestOptions);
    return result.content[0].text;
}

async function toolSteps(client) {
    const { tools } = await client.listTools();
    add('tools/list', tools.map(tool => tool.name).sort());
    add('add', await call(client, 'add', { a: 2, b: 3 }));
    const odd = 'Grüße, 世界 \r\n\r\ndata: no event\u2028';
    add('echo', (await call(client, 'echo', { text: odd })) === odd);
    const large = '0123456789abcdef'.repeat(4096); // 64 KiB: express takes 100 kB of JSON
    add('echo, large', (await call(client, 'echo', { text: large })) === large);
}

async function progressStep(client) {
    const key = randomUUID();
    const progress = [];
    const onprogress = event => {
        progress.push([event.progress, event.total]);
        call(client, 'go_on', { key });
    };
    add('walk', { result: await call(client, 'walk', { key, steps: 5 }, { onprogress }), progress });
}

async function cancelStep(client) {
    const key = randomUUID();
    const abandon = new AbortController();
    const onprogress = () => abandon.abort('abandoned');
    await call(client, 'wait_until_cancelled', { key }, { onprogress, signal: abandon.signal }).catch(() => {});
    add('was_cancelled', await call(client, 'was_cancelled', { key }));
}

function throughRemote() {
    const file = name => fileURLToPath(new URL(name, import.meta.url));
    const program = ['--import', file('names.mjs'), file('node_modules/mcp-remote/dist/proxy.js')];
    const args = [...program, url.href, '--allow-http', '--transport', 'http-only'];
    return new StdioClientTransport({ command: process.execPath, args, env: { ...process.env }, stderr: 'inherit' });
}

async function run() {
    const client = newClient();
    const transport = values.remote ? throughRemote() : new StreamableHTTPClientTransport(url);
    await client.connect(transport);
    add('initialize', client.getServerVersion());
    await toolSteps(client);
    await progressStep(client);
    add('ask_model', await call(client, 'ask_model', { prompt: 'the capital of France' }));
    await cancelStep(client);
    add('interrupted', await call(client, 'interrupted', {}));
    await heard('after the gap'); // the SDK calls handlers later than it returns results
    add('heard', told.filter(text => text.includes('gap')));
    await sleep(1000 * Number(values.silence));
    add('announce', await call(client, 'announce', { text: 'after the silence' }));
    await heard('after the silence');
    add('heard', 'after the silence');
    if (!values.remote) {
        const session = transport.sessionId;
        await transport.terminateSession();
        const headers = {
            'mcp-session-id': session,
            accept: 'application/json, text/event-stream',
            'content-type': 'application/json',
        };
        const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list' });
        const gone = await fetch(url, { method: 'POST', headers, body });
        add('a request after DELETE', { status: gone.status, body: await gone.json() });
    }
    await client.close();
}

await run();
console.log(JSON.stringify(transcript));
process.exit(0);

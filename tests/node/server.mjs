// The sample MCP server on the official TypeScript SDK: sessions, resumption, and tools that wait for the client.
// Prints its port as one line of JSON. Ends with its standard input.
import { randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { createMcpExpressApp } from '@modelcontextprotocol/sdk/server/express.js';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { z } from 'zod';

const steps = new EventEmitter(); // key -> go on
const cancelled = new Set();
const sessions = new Map();
const seen = {}; // "METHOD status" -> how often

// Numbers its events. (The SDK's example names them by time and chance, and so forgets some that share a millisecond.)
class EventStore {
    events = [];

    async storeEvent(streamId, message) {
        this.events.push({ streamId, message });
        return String(this.events.length);
    }

    async replayEventsAfter(lastEventId, { send }) {
        const last = Number(lastEventId);
        const { streamId } = this.events[last - 1];
        for (const [index, event] of this.events.entries()) {
            const message = event.message;
            const isPriming = !message || Object.keys(message).length === 0;
            if (index >= last && event.streamId === streamId && !isPriming) await send(String(index + 1), message);
        }
        return streamId;
    }
}

const text = value => ({ content: [{ type: 'text', text: String(value) }] });

function buildServer() {
    const server = new McpServer({ name: 'sample', version: '1' }, { capabilities: { logging: {} } });
    const tool = (name, inputSchema, run) => server.registerTool(name, { description: name, inputSchema }, run);

    tool('add', { a: z.number(), b: z.number() }, async ({ a, b }) => text(a + b));
    tool('echo', { text: z.string() }, async ({ text: said }) => text(said));

    // Each step waits for `go_on`, so progress that is held back on the way would stop it.
    tool('walk', { key: z.string(), steps: z.number() }, async ({ key, steps: count }, extra) => {
        const progressToken = extra._meta.progressToken;
        for (let progress = 1; progress <= count; progress++) {
            const released = once(steps, key);
            await extra.sendNotification({
                method: 'notifications/progress',
                params: { progressToken, progress, total: count },
            });
            await released;
        }
        return text(`walked ${count}`);
    });
    tool('go_on', { key: z.string() }, async ({ key }) => text(steps.emit(key)));

    tool('ask_model', { prompt: z.string() }, async ({ prompt }, extra) => {
        const messages = [{ role: 'user', content: { type: 'text', text: prompt } }];
        const params = { messages, maxTokens: 16 };
        const answer = await server.server.createMessage(params, { relatedRequestId: extra.requestId });
        return text(`the model says: ${answer.content.text}`);
    });

    // Without a related request the notification goes out on the session's GET stream.
    tool('announce', { text: z.string() }, async ({ text: data }) => {
        await server.server.sendLoggingMessage({ level: 'info', data });
        return text('announced');
    });

    tool('wait_until_cancelled', { key: z.string() }, async ({ key }, extra) => {
        const { progressToken } = extra._meta;
        const ended = once(extra.signal, 'abort');
        await extra.sendNotification({ method: 'notifications/progress', params: { progressToken, progress: 0 } });
        await ended;
        cancelled.add(key);
        steps.emit(key);
        return text('never');
    });
    tool('was_cancelled', { key: z.string() }, async ({ key }) => {
        if (!cancelled.has(key)) await once(steps, key);
        return text(true);
    });

    // The call's own stream is closed; the rest is there for who comes back with Last-Event-ID.
    tool('interrupted', {}, async (_, extra) => {
        const method = 'notifications/message';
        const say = data => extra.sendNotification({ method, params: { level: 'info', data } });
        await say('before the gap');
        extra.closeSSEStream();
        await say('after the gap');
        return text('resumed');
    });
    return server;
}

async function newTransport() {
    const transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: () => randomUUID(),
        eventStore: new EventStore(),
        retryInterval: 50, // milliseconds
        onsessioninitialized: id => sessions.set(id, transport),
    });
    await buildServer().connect(transport);
    return transport;
}

const app = createMcpExpressApp();
app.get('/facts', (_, response) => response.json(seen));
app.all('/mcp', async (request, response) => {
    response.on('close', () => {
        const how = `${request.method} ${response.statusCode}${request.headers['last-event-id'] ? ' resuming' : ''}`;
        seen[how] = (seen[how] ?? 0) + 1;
    });
    const id = request.headers['mcp-session-id'];
    if (id && !sessions.has(id)) {
        response.status(404).json({ jsonrpc: '2.0', error: { code: -32001, message: 'Session not found' }, id: null });
        return;
    }
    const transport = id ? sessions.get(id) : await newTransport();
    await transport.handleRequest(request, response, request.body);
    if (request.method === 'DELETE') sessions.delete(id);
});
const listener = app.listen(0, '127.0.0.1', () =>
    console.log(JSON.stringify({ event: 'serving', port: listener.address().port })));
process.stdin.on('end', () => process.exit(0)).resume();
process.on('SIGTERM', () => process.exit(0));

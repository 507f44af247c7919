// Names below .localhost are this machine (RFC 6761 §6.3), also where the system's resolver knows none.
// Loaded with `node --import`, so that programs of others can be run too.
import dns from 'node:dns';

const systemLookup = dns.lookup;

dns.lookup = (hostname, ...rest) =>
    systemLookup(/\.localhost\.?$/i.test(hostname) ? '127.0.0.1' : hostname, ...rest);

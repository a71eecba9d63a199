// The timeouts and retries of proto/service_config.json, which Connect does not read by itself.

import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";

interface MethodConfig {
  name: { service: string; method: string }[];
  timeout?: string;
  retryPolicy?: {
    maxAttempts: number;
    initialBackoff: string;
    maxBackoff: string;
    backoffMultiplier: number;
    retryableStatusCodes: string[];
  };
}

/** A transport that gives each call its method's time, and sends again what may be sent again, within that time. */
export function withServiceConfig(inner: Transport, path: string): Transport {
  const configs: MethodConfig[] = JSON.parse(readFileSync(path, "utf8")).methodConfig;
  const find = (service: string, method: string) =>
    configs.find((config) => config.name.some((name) => name.service === service && name.method === method));

  return {
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      const config = find(method.parent.typeName, method.name);
      const end = Date.now() + (timeoutMs ?? millis(config?.timeout ?? "30s"));
      return repeated(config, end, signal, () =>
        inner.unary(method, signal, Math.max(1, end - Date.now()), header, input, contextValues),
      );
    },
    // Only the start of a stream is repeated. Who reads one that breaks later opens it again, with its last
    // resumeToken.
    async stream(method, signal, timeoutMs, header, input, contextValues) {
      const config = find(method.parent.typeName, method.name);
      const end = Date.now() + (timeoutMs ?? Number.POSITIVE_INFINITY);
      const sent = await collected(input);
      return repeated(config, end, signal, () =>
        inner.stream(method, signal, timeoutMs && Math.max(1, end - Date.now()), header, replayed(sent), contextValues),
      );
    },
  };
}

/** Runs a call until it succeeds, may not be repeated, or has no time for another try. */
async function repeated<T>(config: MethodConfig | undefined, end: number, signal: AbortSignal | undefined, call: () => Promise<T>): Promise<T> {
  const policy = config?.retryPolicy;
  let backoff = millis(policy?.initialBackoff ?? "0s");
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      const delay = backoff * (0.8 + 0.4 * Math.random());
      const code = Code[ConnectError.from(error).code]?.replace(/(?<=[a-z])[A-Z]/g, "_$&").toUpperCase();
      const repeatable = code !== undefined && policy?.retryableStatusCodes.includes(code);
      if (!policy || !repeatable || attempt >= policy.maxAttempts || Date.now() + delay >= end) throw error;
      await sleep(delay, undefined, { signal });
      backoff = Math.min(backoff * policy.backoffMultiplier, millis(policy.maxBackoff));
    }
  }
}

function millis(duration: string): number {
  return Number.parseFloat(duration) * 1000;
}

async function collected<T>(messages: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const message of messages) all.push(message);
  return all;
}

async function* replayed<T>(messages: T[]): AsyncIterable<T> {
  yield* messages;
}

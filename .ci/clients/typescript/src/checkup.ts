// How to reach the services of checkup, and how to read why they refuse.

import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Reason } from "../stubs/checkup/error/v1/error_pb.js";
import { ErrorInfoSchema } from "../stubs/google/rpc/error_details_pb.js";
import { withServiceConfig } from "./service_config.js";

/** Opens a channel for one caller. The service config gives each call its deadline and says what is sent again. */
export function connect(address: string, token: string): Transport {
  const bearer: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  // Without TLS, as `checkup up` serves it; a gateway is https.
  const transport = createGrpcTransport({ baseUrl: `http://${address}`, interceptors: [bearer] });
  return withServiceConfig(transport, "proto/service_config.json");
}

/** Why a service of checkup refused a call, in a form to act on. */
export interface Refusal {
  code: Code;
  /** REASON_UNSPECIFIED where the stubs are older than the reason: then the code alone decides. */
  reason: Reason;
  metadata: Record<string, string>;
}

/** Takes an error apart; undefined where no service of checkup made it, as when nobody could be reached. */
export function refused(error: unknown): Refusal | undefined {
  if (!(error instanceof ConnectError)) return undefined;
  const info = error.findDetails(ErrorInfoSchema).find((detail) => detail.domain === "checkup");
  if (!info) return undefined;
  const reason = Reason[info.reason as keyof typeof Reason] ?? Reason.REASON_UNSPECIFIED;
  return { code: error.code, reason, metadata: info.metadata };
}

/** A refusal as one line. */
export function show({ code, reason, metadata }: Refusal): string {
  const values = Object.entries(metadata).map(([key, value]) => `${key}=${value}`);
  return [Code[code], Reason[reason], ...values.sort()].join(" ");
}

/** An error as one line for a person. */
export function explain(error: unknown): string {
  const { code, rawMessage } = ConnectError.from(error);
  const why = refused(error);
  return `${why ? show(why) : Code[code]}: ${rawMessage}`;
}

// Who is logged in. Tokens live in memory and, for a reload, in this tab's session storage: never in a URL or a cookie.
import { create, type DescService } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { IdentityService, LogInRequestSchema } from "../gen/wayfare/identity/v1/identity_service_pb.js";
import type { Session as Tokens } from "../gen/wayfare/identity/v1/session_pb.js";
import { Role } from "../gen/wayfare/policy/v1/policy_pb.js";

const KEPT = "wayfare-session";
// Before the end of an access token, so that clocks may differ a little.
const REFRESH_EARLY_MS = 60_000;

interface Kept {
  access: string;
  refresh: string;
  expires: number;
  role: Role;
}

/** Is a logged-in person: calls with a fresh access token. */
export class Session {
  private readonly transport: Transport;
  private refreshing: Promise<void> | undefined;

  private constructor(
    private readonly identity: Client<typeof IdentityService>,
    private kept: Kept,
  ) {
    this.transport = transportOf([
      (next) => async (request) => {
        request.header.set("authorization", `Bearer ${await this.accessToken()}`);
        return next(request);
      },
    ]);
  }

  /** Log in; throws ConnectError with the server's sentence when it refuses. */
  static async logIn(tenantId: string, phone: string, password: string): Promise<Session> {
    const identity = createClient(IdentityService, transportOf([]));
    const request = create(LogInRequestSchema, { tenantId, phone, password, requestId: crypto.randomUUID() });
    return new Session(identity, keep(await identity.logIn(request)));
  }

  /** Go on with the session of this tab, if there is one. */
  static resumed(): Session | undefined {
    const text = sessionStorage.getItem(KEPT);
    if (text === null) return undefined;
    return new Session(createClient(IdentityService, transportOf([])), JSON.parse(text) as Kept);
  }

  /** Return what calls a service as this person. A page names only what it needs, and is no larger. */
  client<Service extends DescService>(service: Service): Client<Service> {
    return createClient(service, this.transport);
  }

  /** Say whether the fleet may be seen, and the alerts. */
  get seesFleet(): boolean {
    return this.kept.role === Role.ADMIN || this.kept.role === Role.BUSINESS;
  }

  get seesAlerts(): boolean {
    return this.kept.role === Role.ADMIN;
  }

  /** End the session here and on the server. */
  async logOut(): Promise<void> {
    sessionStorage.removeItem(KEPT);
    const headers = { authorization: `Bearer ${this.kept.access}` };
    await this.identity.logOut({ requestId: crypto.randomUUID() }, { headers }).catch(() => undefined);
  }

  private async accessToken(): Promise<string> {
    if (Date.now() > this.kept.expires - REFRESH_EARLY_MS) {
      // All calls that need it wait for one refresh: a refresh token is good for once.
      this.refreshing ??= this.refresh().finally(() => {
        this.refreshing = undefined;
      });
      await this.refreshing;
    }
    return this.kept.access;
  }

  private async refresh(): Promise<void> {
    // The same id when it is tried again: an answer that got lost must not look like theft.
    const request = { refreshToken: this.kept.refresh, requestId: crypto.randomUUID() };
    for (let attempt = 1; ; attempt++) {
      try {
        this.kept = keep(await this.identity.refreshSession(request));
        return;
      } catch (error) {
        if (ConnectError.from(error).code !== Code.Unavailable || attempt === 5) throw error;
        await new Promise((wake) => setTimeout(wake, 500 * attempt));
      }
    }
  }
}

function transportOf(interceptors: Interceptor[]): Transport {
  // The page and the API have one origin: Envoy's edge.
  return createGrpcWebTransport({ baseUrl: window.location.origin, interceptors });
}

function keep(tokens: Tokens): Kept {
  const kept = {
    access: tokens.accessToken,
    refresh: tokens.refreshToken,
    expires: Number(tokens.accessTokenExpireTime?.seconds ?? 0n) * 1000,
    role: tokens.user?.role ?? Role.UNSPECIFIED,
  };
  sessionStorage.setItem(KEPT, JSON.stringify(kept));
  return kept;
}

/** Problem is an error of the API, as problem+json (RFC 9457) has it, or of the network. */
export class Problem extends Error {
  constructor(
    /** HTTP status; 0: no answer arrived. */
    readonly status: number,
    /** Name of the reason without its prefix, such as SEAT_TAKEN. Empty: the problem has none. */
    readonly reason: string,
    /** Text in English, for a person. */
    readonly detail: string,
    /** Numbers of the reason: see docs/reference/errors.md. */
    readonly metadata: Readonly<Record<string, string>>,
    /** Faulty fields; `pointer` is a path such as "#/endTime", or a place such as "line 17, column x_cm". */
    readonly errors: readonly FieldFault[],
    /** Id of the request, for the operator. */
    readonly requestId: string,
    /** Seconds to wait before another attempt. Undefined: the answer does not say. */
    readonly retryAfter?: number,
  ) {
    super(detail)
  }

  /** offline is the problem of a request without an answer. */
  static offline(): Problem {
    return new Problem(0, 'OFFLINE', 'no answer from the library', {}, [], '')
  }

  /** from reads the problem in an answer. */
  static from(response: Response, body: unknown): Problem {
    const p: Partial<Body> = typeof body === 'object' && body !== null ? body : {}
    const retryAfter = Number(response.headers.get('Retry-After') ?? Number.NaN)
    return new Problem(
      response.status,
      p.reason ?? '',
      p.detail ?? response.statusText,
      p.metadata ?? {},
      p.errors ?? [],
      (p.instance ?? '').replace('urn:request:', ''),
      ...(Number.isFinite(retryAfter) ? [retryAfter] : []),
    )
  }

  /** signedOut tells that the token is missing or not valid any more. */
  get signedOut(): boolean {
    return this.status === 401 && this.reason.startsWith('TOKEN_')
  }

  /** temporary tells that another attempt may succeed. */
  get temporary(): boolean {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504
  }
}

export interface FieldFault {
  pointer: string
  detail: string
}

interface Body {
  reason: string
  detail: string
  instance: string
  metadata: Record<string, string>
  errors: FieldFault[]
}

/** asProblem returns an error as a Problem. Errors of the code itself pass. */
export function asProblem(e: unknown): Problem {
  if (e instanceof Problem) return e
  throw e
}

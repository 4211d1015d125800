/**
 * until calls f until it returns without an error, and returns its result. After the limit it throws the
 * last error of f.
 */
export async function until<T>(f: () => Promise<T> | T, limit = 20_000): Promise<T> {
  const end = performance.now() + limit
  for (;;) {
    try {
      return await f()
    } catch (e) {
      if (performance.now() > end) throw e
      await new Promise((done) => setTimeout(done, 50))
    }
  }
}

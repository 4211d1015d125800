import { readFileSync } from 'node:fs'
import { until } from './until.ts'
import { url } from './api.ts'

/**
 * The stack writes the process ids to its log: "app1     | ready after 0.5 s (pid 123)". It starts a
 * process that ended again, after half a second at first.
 */
function starts(name: string): readonly number[] {
  const log = process.env['DLSMS_STACK_LOG']
  if (log === undefined) throw new Error('this test stops processes: run it without DLSMS_URL')
  const line = new RegExp(`^${name} +\\| ready after .* \\(pid (\\d+)\\)$`, 'gm')
  return [...readFileSync(log, 'utf8').matchAll(line)].map((m) => Number(m[1]))
}

/** replicas are the names of the replicas. */
export const replicas = ['app1', 'app2', 'app3'] as const

/** ProcessName is the name of a process of the stack. */
export type ProcessName = (typeof replicas)[number] | 'nginx' | 'redis' | 'postgres'

/** pidOf returns the process id of a process of the stack. */
export function pidOf(name: ProcessName): number {
  const pid = starts(name).at(-1)
  if (pid === undefined) throw new Error(`${name} does not run`)
  return pid
}

/** kill ends a process at once and returns a function that waits until it serves again. */
export function kill(name: ProcessName, signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): () => Promise<void> {
  const before = starts(name).length
  process.kill(pidOf(name), signal)
  return async () => {
    await until(() => {
      if (starts(name).length <= before) throw new Error(`${name} has not started again`)
    }, 60_000)
    await until(async () => {
      const { status } = await fetch(`${url}/healthz`)
      if (status !== 200) throw new Error(`the system answers ${status}`)
    })
  }
}

/** restart stops a process in order, and waits until it serves again. */
export async function restart(name: ProcessName): Promise<void> {
  await kill(name, 'SIGTERM')()
}

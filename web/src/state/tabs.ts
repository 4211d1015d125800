/** Message is a message between the tabs of this browser. It has no data of the user. */
export type Message = 'signed-in' | 'signed-out' | 'reservations-changed'

const channel = 'BroadcastChannel' in globalThis ? new BroadcastChannel('dlsms') : undefined

/** tell sends a message to the other tabs. */
export function tell(message: Message): void {
  channel?.postMessage(message)
}

/** listen calls f with each message of another tab. */
export function listen(f: (message: Message) => void): void {
  channel?.addEventListener('message', (e: MessageEvent<Message>) => f(e.data))
}

import { useSignal, type Signal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { Button } from '../../ui/action.tsx'
import { makeDecoder } from './decoder.ts'

type State = 'off' | 'starting' | 'on' | 'refused' | 'missing' | 'busy' | 'insecure'

const pause = 120 // milliseconds between two pictures that are looked at

/**
 * Camera looks for a QR code, after a tap. onCode gets the text of each new code, and returns whether
 * that ends the search. The camera stops then, when the page is hidden, and when it is left.
 */
export function Camera({ onCode }: { onCode: (text: string) => boolean }): JSX.Element {
  const state = useSignal<State>('off')
  const video = useRef<HTMLVideoElement>(null)
  const stop = useRef<() => void>(() => undefined)
  const found = useRef(onCode)
  found.current = onCode
  useEffect(() => {
    const hide = (): void => {
      if (document.visibilityState === 'hidden') stop.current()
    }
    document.addEventListener('visibilitychange', hide)
    return () => {
      document.removeEventListener('visibilitychange', hide)
      stop.current()
    }
  }, [])
  const s = t().scan
  const on = state.value === 'on' || state.value === 'starting'
  const start = (): void => {
    if (video.current === null) return
    stop.current = run(video.current, state, (text) => found.current(text))
  }
  return (
    <div class="camera">
      <video ref={video} hidden={!on} muted playsInline aria-label={s.picture} />
      {on ? (
        <>
          <p role="status">{state.value === 'starting' ? s.starting : s.aim}</p>
          <Button onClick={() => stop.current()}>{s.stop}</Button>
        </>
      ) : (
        <>
          <Button kind="main" onClick={start}>
            {s.open}
          </Button>
          {state.value !== 'off' && (
            <p class="fault" role="alert">
              {s.problem[state.value as keyof typeof s.problem]}
            </p>
          )}
        </>
      )}
    </div>
  )
}

/** run shows the camera in a video and looks at its pictures, until the function that it returns is called. */
function run(video: HTMLVideoElement, state: Signal<State>, onCode: (text: string) => boolean): () => void {
  let stream: MediaStream | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let ended = false
  const end = (because: State): void => {
    if (ended) return
    ended = true
    clearTimeout(timer)
    for (const track of stream?.getTracks() ?? []) track.stop()
    video.srcObject = null
    state.value = because
  }

  const look = async (): Promise<void> => {
    // Both load at the same time: the question for permission takes the user a moment.
    const decoder = makeDecoder()
    stream = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { facingMode: 'environment', width: { ideal: 1280 }, height: { ideal: 720 } },
    })
    if (ended) {
      for (const track of stream.getTracks()) track.stop()
      return
    }
    for (const track of stream.getTracks()) track.onended = () => end('busy')
    video.srcObject = stream
    await video.play()
    const decode = await decoder
    if (ended) return
    state.value = 'on'
    let last = ''
    const next = async (): Promise<void> => {
      const has = video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA
      const text = has ? await decode(video).catch(() => undefined) : undefined
      if (ended) return
      if (text !== undefined && text !== last) {
        last = text
        if (onCode(text)) {
          navigator.vibrate?.(60)
          end('off')
          return
        }
      }
      timer = setTimeout(() => void next(), pause)
    }
    void next()
  }

  if ((navigator.mediaDevices as MediaDevices | undefined) === undefined) {
    end(isSecureContext ? 'missing' : 'insecure')
  } else {
    state.value = 'starting'
    look().catch((e: unknown) => {
      const name = e instanceof DOMException ? e.name : ''
      if (name === 'NotAllowedError' || name === 'SecurityError') end('refused')
      else if (name === 'NotFoundError' || name === 'OverconstrainedError') end('missing')
      else end('busy')
    })
  }
  return () => end('off')
}

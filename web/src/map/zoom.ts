import { useEffect, useRef } from 'preact/hooks'
import type { RefObject } from 'preact'
import type { Box, Plan } from './layout.ts'

export interface Zoom {
  /** by zooms around the middle. */
  by: (factor: number) => void
  /** show zooms so that the boxes fill the view. */
  show: (boxes: readonly Box[]) => void
  /** reveal scrolls until a seat is visible. */
  reveal: (x: number, y: number, size: number) => void
  /** dragged tells that the pointer has just moved the map, so a click is not meant for a seat. */
  dragged: () => boolean
}

const largest = 2.5 // pixels a centimetre

/**
 * useZoom lets the user pan and zoom a drawing inside of an element that scrolls: touch, wheel and keys
 * scroll by the browser itself; here are the mouse, the pinch and the wheel with Ctrl. The scale is an
 * attribute of the drawing and no state of a component, so that zooming draws no seat again.
 */
export function useZoom(
  scroller: RefObject<HTMLDivElement | null>,
  drawing: RefObject<SVGSVGElement | null>,
  plan: Plan,
): Zoom {
  const scale = useRef(0)
  const bounds = useRef(plan.bounds)
  bounds.current = plan.bounds
  const touched = useRef(false)
  const dragEnd = useRef(0)

  const limits = (): { least: number; fit: number } => {
    const box = scroller.current
    const fit = Math.min(
      (box?.clientWidth ?? 300) / bounds.current.right,
      (box?.clientHeight ?? 300) / bounds.current.bottom,
    )
    return { least: Math.min(fit, 24 / plan.seatSize), fit }
  }

  /** set changes the scale and keeps the point under x, y (in pixels of the view) where it is. */
  const set = (wanted: number, x?: number, y?: number): void => {
    const box = scroller.current
    const svg = drawing.current
    if (box === null || svg === null) return
    const next = Math.min(largest, Math.max(limits().least, wanted))
    const px = x ?? box.clientWidth / 2
    const py = y ?? box.clientHeight / 2
    const before = scale.current || next
    const view = box.getBoundingClientRect()
    const at = svg.getBoundingClientRect()
    const cx = (px + view.left - at.left) / before
    const cy = (py + view.top - at.top) / before
    scale.current = next
    svg.setAttribute('width', String(bounds.current.right * next))
    svg.setAttribute('height', String(bounds.current.bottom * next))
    svg.classList.toggle('far', plan.seatSize * next < 24)
    box.scrollLeft = cx * next - px
    box.scrollTop = cy * next - py
  }

  const show = (boxes: readonly Box[]): void => {
    const box = scroller.current
    if (box === null || boxes.length === 0) return
    const left = Math.min(...boxes.map((b) => b.left))
    const top = Math.min(...boxes.map((b) => b.top))
    const width = Math.max(...boxes.map((b) => b.right)) - left
    const height = Math.max(...boxes.map((b) => b.bottom)) - top
    touched.current = true
    set(Math.min(box.clientWidth / width, box.clientHeight / height, 1.2))
    box.scrollLeft = (left + width / 2) * scale.current - box.clientWidth / 2
    box.scrollTop = (top + height / 2) * scale.current - box.clientHeight / 2
  }

  // At first, the whole map, but with seats that a finger can hit.
  useEffect(() => {
    const box = scroller.current
    if (box === null) return
    const fit = (): void => {
      if (!touched.current)
        set(Math.max(limits().fit, Math.min(34 / plan.seatSize, box.clientWidth / bounds.current.right)))
      else set(scale.current)
    }
    fit()
    const resized = new ResizeObserver(() => {
      if (!touched.current) fit()
    })
    resized.observe(box)
    return () => resized.disconnect()
  }, [plan])

  useEffect(() => {
    const box = scroller.current
    if (box === null) return
    const place = (x: number, y: number): [number, number] => {
      const r = box.getBoundingClientRect()
      return [x - r.left, y - r.top]
    }
    const wheel = (e: WheelEvent): void => {
      if (!e.ctrlKey) return
      e.preventDefault()
      touched.current = true
      set(
        scale.current * Math.exp(-e.deltaY * (e.deltaMode === 1 ? 0.05 : 0.004)),
        ...place(e.clientX, e.clientY),
      )
    }
    let pinch: { distance: number; scale: number } | undefined
    const two = (e: TouchEvent): { distance: number; x: number; y: number } | undefined => {
      const [a, b] = e.touches
      if (a === undefined || b === undefined || e.touches.length !== 2) return undefined
      return {
        distance: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY),
        x: (a.clientX + b.clientX) / 2,
        y: (a.clientY + b.clientY) / 2,
      }
    }
    const touchStart = (e: TouchEvent): void => {
      const t = two(e)
      pinch = t === undefined ? undefined : { distance: t.distance, scale: scale.current }
      if (t !== undefined) e.preventDefault()
    }
    const touchMove = (e: TouchEvent): void => {
      const t = two(e)
      if (t === undefined || pinch === undefined) return
      e.preventDefault()
      touched.current = true
      dragEnd.current = performance.now()
      set((pinch.scale * t.distance) / pinch.distance, ...place(t.x, t.y))
    }
    let drag: { x: number; y: number; moved: boolean } | undefined // where the pointer was when scrolled to 0, 0
    const down = (e: PointerEvent): void => {
      if (e.pointerType !== 'mouse' || e.button !== 0) return
      drag = { x: e.clientX + box.scrollLeft, y: e.clientY + box.scrollTop, moved: false }
    }
    const moving = (e: PointerEvent): void => {
      if (drag === undefined) return
      const left = drag.x - e.clientX
      const top = drag.y - e.clientY
      if (!drag.moved && Math.hypot(left - box.scrollLeft, top - box.scrollTop) < 5) return
      if (!drag.moved) box.setPointerCapture(e.pointerId)
      drag.moved = true
      box.scrollTo(left, top)
    }
    const up = (): void => {
      if (drag?.moved === true) dragEnd.current = performance.now()
      drag = undefined
    }
    box.addEventListener('wheel', wheel, { passive: false })
    box.addEventListener('touchstart', touchStart, { passive: false })
    box.addEventListener('touchmove', touchMove, { passive: false })
    box.addEventListener('pointerdown', down)
    box.addEventListener('pointermove', moving)
    box.addEventListener('pointerup', up)
    box.addEventListener('pointercancel', up)
    return () => {
      box.removeEventListener('wheel', wheel)
      box.removeEventListener('touchstart', touchStart)
      box.removeEventListener('touchmove', touchMove)
      box.removeEventListener('pointerdown', down)
      box.removeEventListener('pointermove', moving)
      box.removeEventListener('pointerup', up)
      box.removeEventListener('pointercancel', up)
    }
  }, [plan])

  return {
    by(factor) {
      touched.current = true
      set(scale.current * factor)
    },
    show,
    reveal(x, y, size) {
      const box = scroller.current
      const svg = drawing.current
      if (box === null || svg === null) return
      const view = box.getBoundingClientRect()
      const at = svg.getBoundingClientRect()
      const margin = size * scale.current
      const px = at.left - view.left + x * scale.current
      const py = at.top - view.top + y * scale.current
      if (px < margin) box.scrollLeft += px - margin
      else if (px > box.clientWidth - margin) box.scrollLeft += px - box.clientWidth + margin
      if (py < margin) box.scrollTop += py - margin
      else if (py > box.clientHeight - margin) box.scrollTop += py - box.clientHeight + margin
      // The page itself may have to scroll, too.
      box.scrollIntoView({ block: 'nearest' })
    },
    dragged: () => performance.now() - dragEnd.current < 100,
  }
}

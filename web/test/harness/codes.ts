import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Page } from 'playwright-core'
import { encodeQR } from 'qr'
import { admin, ok, unique, url, type Branch, type Schema } from './api.ts'

/** Screen is a screen of a branch with the codes that it shows. */
export interface Screen {
  name: string
  /** now returns the newest code that is valid now. */
  now(): Schema<'ScreenCode'>
}

/** newScreen adds a screen to a branch, and reads the codes of its next five minutes. */
export async function newScreen(branch: Branch, name = 'Entrance'): Promise<Screen> {
  const { api } = await admin()
  const params = { path: { branch: branch.code } }
  await ok(api.POST('/v1/admin/branches/{branch}/screens', { params, body: { name } }))
  const body = { branch: branch.code, name: unique('screen '), scopes: ['KEY_SCOPE_SCREEN' as const] }
  const { secret } = await ok(api.POST('/v1/admin/keys', { body }))
  const stop = new AbortController()
  const query = `?screen=${encodeURIComponent(name)}`
  const response = await fetch(`${url}/v1/screen:watch${query}`, {
    headers: { Authorization: `Bearer ${secret}`, Accept: 'text/event-stream' },
    signal: stop.signal,
  })
  if (!response.ok || response.body === null) {
    throw new Error(`the screen got ${response.status}: ${await response.text()}`)
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  for (let text = ''; ;) {
    const { done, value } = await reader.read()
    if (done) throw new Error('the stream of the screen ended')
    text += value
    const data = /^data: ?(.*)$/m.exec(text)?.[1]
    if (data === undefined || !text.includes(`${data}\n`)) continue
    const { state } = JSON.parse(data) as Schema<'WatchScreenResponse'>
    stop.abort()
    const codes = state?.codes ?? []
    return {
      name,
      now() {
        const time = Date.now()
        const shown = codes.filter((c) => Date.parse(c.validFrom ?? '') <= time)
        const newest = shown.filter((c) => Date.parse(c.validUntil ?? '') > time).at(-1)
        if (newest === undefined) throw new Error('the codes of the screen are too old')
        return newest
      },
    }
  }
}

/** labelsOf returns the codes of the labels of a branch, by the id of the seat. */
export async function labelsOf(branch: Branch): Promise<Map<string, string>> {
  const { api } = await admin()
  const query = { branch: branch.code, itemsOnly: true }
  const { items } = (await ok(
    api.GET('/v1/admin/labels', { params: { query } }),
  )) as Schema<'MakeLabelsResponse'>
  return new Map(items.map((i) => [i.seatId, i.code]))
}

/** setRules sets rules of a branch. */
export async function setRules(branch: Branch, rules: Schema<'PolicyRules'>): Promise<void> {
  const { api } = await admin()
  await ok(
    api.POST('/v1/admin/policies', { body: { policy: { branch: branch.code, rules } as Schema<'Policy'> } }),
  )
}

/** cameraOf returns arguments of Chromium for a camera that shows the QR code of a text. */
export function cameraOf(text: string): string[] {
  return [
    '--use-fake-ui-for-media-stream',
    '--use-fake-device-for-media-stream',
    `--use-file-for-fake-video-capture=${video(text)}`,
  ]
}

const width = 640
const height = 480

/** video writes a film of one picture, which shows the QR code of a text on grey. */
function video(text: string): string {
  const modules = encodeQR(text, 'raw', { ecc: 'medium', border: 4 })
  const pixels = Math.floor(Math.min(width, height) / modules.length)
  const [left, top] = [(width - modules.length * pixels) >> 1, (height - modules.length * pixels) >> 1]
  const luma = Buffer.alloc(width * height, 150)
  for (const [y, row] of modules.entries()) {
    for (const [x, dark] of row.entries()) {
      for (let line = 0; line < pixels; line++) {
        const at = (top + y * pixels + line) * width + left + x * pixels
        luma.fill(dark ? 30 : 225, at, at + pixels)
      }
    }
  }
  const file = join(mkdtempSync(join(tmpdir(), 'dlsms-camera-')), 'code.y4m')
  const head = `YUV4MPEG2 W${width} H${height} F10:1 Ip A1:1 C420mpeg2\n`
  const frame = Buffer.concat([Buffer.from('FRAME\n'), luma, Buffer.alloc((width * height) / 2, 128)])
  writeFileSync(file, Buffer.concat([Buffer.from(head), frame, frame]))
  return file
}

/** Picture is a picture in RGBA. */
export interface Picture {
  width: number
  height: number
  data: Uint8Array
}

/** pixelsOf takes a picture of the window of a page. */
export async function pixelsOf(page: Page): Promise<Picture> {
  const png = (await page.screenshot({ scale: 'css' })).toString('base64')
  // An empty page decodes it: the policy of the client's pages forbids pictures of other sources.
  const empty = await page.context().newPage()
  try {
    const [width, height, data] = await empty.evaluate(async (base64) => {
      const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${base64}`)).blob())
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d')
      if (context === null) throw new Error('the browser has no canvas')
      context.drawImage(bitmap, 0, 0)
      const bytes = context.getImageData(0, 0, bitmap.width, bitmap.height).data
      let text = ''
      for (let i = 0; i < bytes.length; i += 0x8000)
        text += String.fromCharCode(...bytes.subarray(i, i + 0x8000))
      return [bitmap.width, bitmap.height, btoa(text)] as const
    }, png)
    return { width, height, data: new Uint8Array(Buffer.from(data, 'base64')) }
  } finally {
    await empty.close()
  }
}

/** film writes a film for the camera of a browser that shows the window of a page as it is now. */
export async function film(page: Page, file: string): Promise<void> {
  const { width: w, height: h, data } = await pixelsOf(page)
  const luma = Buffer.alloc(w * h)
  for (let i = 0; i < luma.length; i++) {
    const [r = 0, g = 0, b = 0] = data.subarray(i * 4, i * 4 + 3)
    luma[i] = 16 + (0.299 * r + 0.587 * g + 0.114 * b) * 0.86
  }
  const head = `YUV4MPEG2 W${w} H${h} F10:1 Ip A1:1 C420mpeg2\n`
  const frame = Buffer.concat([Buffer.from('FRAME\n'), luma, Buffer.alloc((w * h) / 2, 128)])
  writeFileSync(file, Buffer.concat([Buffer.from(head), frame, frame]))
}

import { deflateSync, crc32 as zlibCrc } from 'node:zlib'
import type { Picture } from './codes.ts'

/**
 * png returns a picture as PNG with a palette of 256 colours, which is a third of the size of one in full
 * colour. A picture of a page has few colours, except at the edges of letters.
 */
export function png({ width, height, data }: Picture): Buffer {
  const counts = new Map<number, number>()
  for (let i = 0; i < data.length; i += 4) {
    const color = colorAt(data, i)
    counts.set(color, (counts.get(color) ?? 0) + 1)
  }
  const palette = [...counts]
    .sort((a, b) => b[1] - a[1])
    .slice(0, 256)
    .map(([color]) => color)
  const nearest = new Map(palette.map((color, index) => [color, index]))
  const indexOf = (color: number): number => {
    const known = nearest.get(color)
    if (known !== undefined) return known
    let best = 0
    let least = Infinity
    for (const [index, other] of palette.entries()) {
      const part = (bits: number): number => ((color >> bits) & 255) - ((other >> bits) & 255)
      const distance = part(16) ** 2 + part(8) ** 2 + part(0) ** 2
      if (distance < least) [best, least] = [index, distance]
    }
    nearest.set(color, best)
    return best
  }
  const rows = Buffer.alloc((width + 1) * height) // each row begins with the filter 0: none
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++)
      rows[y * (width + 1) + x + 1] = indexOf(colorAt(data, (y * width + x) * 4))
  }
  const head = Buffer.alloc(13)
  head.writeUInt32BE(width, 0)
  head.writeUInt32BE(height, 4)
  head.set([8, 3, 0, 0, 0], 8) // 8 bits a pixel, with a palette
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', head),
    chunk('PLTE', Buffer.from(palette.flatMap((c) => [(c >> 16) & 255, (c >> 8) & 255, c & 255]))),
    chunk('IDAT', deflateSync(rows, { level: 9 })),
    chunk('IEND', Buffer.alloc(0)),
  ])
}

function colorAt(data: Uint8Array, at: number): number {
  return ((data[at] ?? 0) << 16) | ((data[at + 1] ?? 0) << 8) | (data[at + 2] ?? 0)
}

function chunk(name: string, content: Buffer): Buffer {
  const typed = Buffer.concat([Buffer.from(name, 'latin1'), content])
  const around = Buffer.alloc(8)
  around.writeUInt32BE(content.length, 0)
  around.writeUInt32BE(zlibCrc(typed), 4)
  return Buffer.concat([around.subarray(0, 4), typed, around.subarray(4)])
}

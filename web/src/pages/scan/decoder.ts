/** Decoder finds a QR code in a picture of the camera; undefined: there is none. */
export type Decoder = (video: HTMLVideoElement) => Promise<string | undefined>

interface Detector {
  detect(image: HTMLVideoElement): Promise<{ rawValue: string }[]>
}

interface DetectorClass {
  new (options: { formats: string[] }): Detector
  getSupportedFormats(): Promise<string[]>
}

/** makeDecoder returns the decoder of the browser if it has one for QR codes, else one that is loaded now. */
export async function makeDecoder(): Promise<Decoder> {
  return (await native()) ?? loaded()
}

async function native(): Promise<Decoder | undefined> {
  const Class = (globalThis as { BarcodeDetector?: DetectorClass }).BarcodeDetector
  if (Class === undefined) return undefined
  try {
    if (!(await Class.getSupportedFormats()).includes('qr_code')) return undefined
    const detector = new Class({ formats: ['qr_code'] })
    return async (video) => (await detector.detect(video))[0]?.rawValue
  } catch {
    return undefined // some browsers have the class, but not what it needs
  }
}

const side = 640 // pixels: enough for the codes of a screen and of a label, and fast on an old phone

async function loaded(): Promise<Decoder> {
  const { decodeQR } = await import('qr/decode.js')
  const canvas = document.createElement('canvas')
  const context = canvas.getContext('2d', { willReadFrequently: true })
  return (video) => {
    const scale = Math.min(1, side / Math.max(video.videoWidth, video.videoHeight))
    const width = Math.round(video.videoWidth * scale)
    const height = Math.round(video.videoHeight * scale)
    if (context === null || width === 0 || height === 0) return Promise.resolve(undefined)
    if (canvas.width !== width) canvas.width = width
    if (canvas.height !== height) canvas.height = height
    context.drawImage(video, 0, 0, width, height)
    const { data } = context.getImageData(0, 0, width, height)
    try {
      return Promise.resolve(decodeQR({ width, height, data }))
    } catch {
      return Promise.resolve(undefined) // no code in the picture
    }
  }
}

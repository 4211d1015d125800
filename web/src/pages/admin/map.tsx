import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import { t, ts } from '../../i18n/text.ts'
import { Link } from '../../router.tsx'
import { announce } from '../../ui/announce.tsx'
import { Button, useAction } from '../../ui/action.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { useUnsaved } from '../../ui/unsaved.ts'
import { branch } from './branch.ts'
import { Canvas } from './editor/canvas.tsx'
import { Editor } from './editor/editor.ts'
import { Panel } from './editor/panel.tsx'
import { Tray } from './editor/tray.tsx'
import { loadSeats } from './seats/data.ts'

/** Section is the floor plan editor. */
export function Section(): JSX.Element {
  const code = branch.value?.code ?? ''
  const load = useAction()
  const editor = useSignal<Editor | undefined>(undefined)
  const open = (): void =>
    void load.run(async () => {
      editor.value = new Editor(code, await loadSeats(code))
    })
  useEffect(open, [code])
  if (editor.value === undefined) {
    return load.problem.value === undefined ? (
      <p class="loading" role="status">
        {t().common.loading}
      </p>
    ) : (
      <>
        <Fault problem={load.problem.value} />
        <Button onClick={open}>{t().common.retry}</Button>
      </>
    )
  }
  if (editor.value.read.value.size === 0) {
    return (
      <p>
        {ts().seats.plan.noSeats} <Link href={`/admin/seats?branch=${code}`}>{ts().seats.title}</Link>
      </p>
    )
  }
  return <EditorView editor={editor.value} />
}

function EditorView({ editor }: { editor: Editor }): JSX.Element {
  const text = ts().seats.plan
  const save = useAction()
  const boxes = useSignal(false)
  const wanted = useSignal('')
  const n = editor.changes.value.length
  const dirty = n > 0
  void editor.drawing.value // undo and redo depend on it

  useUnsaved(dirty, text.leave)

  function keys(e: KeyboardEvent): void {
    if (e.defaultPrevented || !(e.ctrlKey || e.metaKey) || e.altKey) return
    // In a field, these keys take back what was typed.
    if (e.target instanceof HTMLInputElement) return
    const key = e.key.toLowerCase()
    if (key === 's') store()
    else if (key === 'z' && !e.shiftKey) editor.undo()
    else if (key === 'y' || key === 'z') editor.redo()
    else return
    e.preventDefault()
  }

  function store(): void {
    if (!dirty) return
    void save.run(async () => {
      if (await editor.save()) notify(text.saved(n))
      else announce(text.conflict(editor.conflict.value.join(', ')))
    })
  }

  // The page has the keys, not the editor: a seat or button that disappears loses the focus.
  useEffect(() => {
    addEventListener('keydown', keys)
    return () => removeEventListener('keydown', keys)
  })

  return (
    <div class="plan-editor">
      <div class="plan-tools" role="group" aria-label={text.tools}>
        <Button kind="main" disabled={!dirty} busy={save.busy.value} onClick={store}>
          {dirty ? text.save(n) : text.nothingToSave}
        </Button>
        <Button label={text.undo} disabled={!editor.history.canUndo} onClick={() => editor.undo()}>
          ↶
        </Button>
        <Button label={text.redo} disabled={!editor.history.canRedo} onClick={() => editor.redo()}>
          ↷
        </Button>
        <Button label={text.zoomOut} onClick={() => editor.zoom(1 / 1.25)}>
          −
        </Button>
        <Button label={text.zoomIn} onClick={() => editor.zoom(1.25)}>
          +
        </Button>
        <Button onClick={() => editor.fit()}>{text.fit}</Button>
        {editor.floors.length > 1 && (
          <label class="plan-tool">
            {text.floor}
            <select value={editor.floor.value} onChange={(e) => editor.showFloor(e.currentTarget.value)}>
              {editor.floors.map((f) => (
                <option key={f} value={f}>
                  {f === '' ? text.noFloor : f}
                </option>
              ))}
            </select>
          </label>
        )}
        <label class="plan-tool">
          {text.grid}
          <select
            value={editor.grid.value}
            onChange={(e) => (editor.grid.value = Number(e.currentTarget.value))}
          >
            {[0, 5, 10, 25, 50].map((g) => (
              <option key={g} value={g}>
                {g === 0 ? text.noGrid : `${g} cm`}
              </option>
            ))}
          </select>
        </label>
        <form
          class="plan-tool"
          onSubmit={(e) => {
            e.preventDefault()
            announce(text.seats(editor.find(wanted.value)))
          }}
        >
          <label for="plan-find">{text.find}</label>
          <input
            id="plan-find"
            type="search"
            size={10}
            placeholder="R-01…R-12"
            value={wanted.value}
            onInput={(e) => (wanted.value = e.currentTarget.value)}
          />
        </form>
        <label class="choice plan-touch">
          <input
            type="checkbox"
            checked={boxes.value}
            onChange={(e) => (boxes.value = e.currentTarget.checked)}
          />
          {text.boxes}
        </label>
      </div>
      <Fault problem={save.problem.value} />
      {editor.conflict.value.length > 0 && (
        <div class="fault" role="alert">
          <p>{text.conflict(editor.conflict.value.slice(0, 20).join(', '))}</p>
          <Button busy={save.busy.value} onClick={() => void save.run(() => editor.takeTheirs())}>
            {text.takeTheirs}
          </Button>
        </div>
      )}
      <div class="plan-work">
        <Canvas editor={editor} boxes={boxes.value} />
        <div class="plan-side">
          <Panel editor={editor} />
          <Tray editor={editor} />
        </div>
      </div>
    </div>
  )
}

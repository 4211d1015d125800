import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { branches, loadBranches } from '../../state/branches.ts'

/**
 * useBranches reads the branches, and reports whether their time zones are known: from this visit or an
 * earlier one. Without a network it gives up, and times are in the zone of the device.
 */
export function useBranches(): boolean {
  const tried = useSignal(false)
  useEffect(() => {
    const end = (): void => {
      tried.value = true
    }
    loadBranches().then(end, end)
  }, [])
  return branches.value.length > 0 || tried.value
}

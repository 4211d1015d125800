import type { admin as English } from '../en/admin.ts'

export const admin: typeof English = {
  title: 'Bibliothek',
  today: 'Heute',
  branch: 'Zweigstelle',
  announcement: 'Ankündigung',
  audit: 'Änderungsprotokoll',
  section: 'Abschnitt',
  groupNow: 'Aktuell',
  groupRules: 'Regeln',
  groupLibrary: 'Bibliothek',
  date: 'Datum',
  time: 'Uhrzeit',
  noEnd: (start) => `ab ${start}, ohne Ende`,
  announce: {
    present: 'Das sehen Studierende jetzt',
    none: 'Es gibt keine Ankündigung.',
    stays: 'Sie bleibt, bis Sie sie entfernen.',
    until: (time) => `Sie wird gezeigt bis ${time}.`,
    remove: 'Entfernen',
    removed: 'Die Ankündigung ist entfernt.',
    make: 'Neue Ankündigung',
    change: 'Ankündigung ändern',
    text: 'Text',
    textHint: 'Studierende sehen den Text in ihrer Sprache, sonst auf Englisch. Schreiben Sie mindestens einen.',
    hasEnd: 'Endet von selbst',
    end: 'Zeigen bis',
    preview: 'So sehen es Studierende',
    noText: 'Schreiben Sie einen Text in mindestens einer Sprache.',
    save: 'Studierenden zeigen',
    saved: 'Studierende sehen die Ankündigung jetzt.',
  },
  note: {
    legend: 'Text für Studierende',
    hint: 'Studierende sehen den Text in ihrer Sprache, sonst auf Englisch. Jeder Text ist freiwillig.',
  },
  impact: {
    title: 'Auswirkung auf Studierende',
    loading: 'Betroffene Reservierungen werden gesucht…',
    reservations: (n) =>
      n === 0
        ? 'Keine Reservierung ist betroffen.'
        : `${n === 1 ? '1 Reservierung ist' : `${n} Reservierungen sind`} betroffen.`,
    checkedIn: (n) => (n === 1 ? '1 Person sitzt gerade am Platz.' : `${n} Personen sitzen gerade an ihrem Platz.`),
    waitlist: (n) =>
      n === 1
        ? '1 Eintrag der Warteliste liegt darin und bleibt.'
        : `${n} Einträge der Warteliste liegen darin und bleiben.`,
    affected: 'Betroffene Reservierungen',
    person: 'Person',
    seat: 'Platz',
    time: 'Zeit',
    showFirst: (n) => `${n} anzeigen`,
    notShown: (n) => (n === 1 ? '1 weitere wird nicht angezeigt.' : `${n} weitere werden nicht angezeigt.`),
    action: 'Reservierungen in dieser Zeit',
    keep: 'Behalten',
    keepHint: 'Die Studierenden können ihre Plätze wie reserviert nutzen.',
    cancel: 'Stornieren',
    cancelHint: 'Alle Betroffenen erfahren es sofort, mit Ihrem Text und, wenn möglich, dem Vorschlag eines anderen Platzes.',
    confirmCancel: (confirm, n) =>
      n === 1 ? `${confirm} und 1 Reservierung stornieren` : `${confirm} und ${n} Reservierungen stornieren`,
    reason: 'Grund für das Änderungsprotokoll',
    reasonHint: 'Nur das Personal sieht ihn.',
  },
}

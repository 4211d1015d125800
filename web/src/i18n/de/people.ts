import type { people as English } from '../en/people.ts'

export const people: typeof English = {
  title: 'Personen',
  search: 'Person suchen',
  searchHint: 'Matrikelnummer, Ausweis, E-Mail-Adresse oder ein Teil des Namens.',
  find: 'Suchen',
  found: (n) =>
    n === 0 ? 'Keine Person gefunden.' : n === 1 ? '1 Person gefunden' : `${n} Personen gefunden`,
  atDesk: 'An der Theke öffnen',
  edit: 'Daten ändern',
  role: 'Rolle',
  name: 'Name',
  email: 'E-Mail-Adresse',
  group: 'Gruppe',
  groupHint: 'Ein Wort, das Regelungen nutzen, zum Beispiel erstsemester. Leer: keine Gruppe.',
  card: 'Ausweis',
  suspended: (until) => `gesperrt bis ${until}`,
  closed: 'Konto geschlossen',
  adminOnly: 'Daten und Rollen ändert nur die Administration.',
  saved: (name) => `Die Daten von ${name} sind gespeichert.`,
  editTitle: (id) => `Daten von ${id}`,
  roleTitle: (name) => `Rolle von ${name}`,
  roleSaved: (name, role) => `${name} hat jetzt die Rolle „${role}“.`,
  roleHint:
    'Die Person wird binnen 5 Sekunden überall abgemeldet und meldet sich mit der neuen Rolle wieder an.',
  roleMeaning: {
    ROLE_STUDENT: 'Reserviert und nutzt Plätze.',
    ROLE_STAFF: 'Hilft an der Theke.',
    ROLE_LIBRARIAN: 'Ändert auch Plätze, Zeiten, Schließungen und Regelungen und liest Berichte.',
    ROLE_ADMIN: 'Alles, in allen Zweigstellen, auch Rollen und Schlüssel.',
  },
  branches: 'Zweigstellen der Rolle',
  allBranches: 'Alle Zweigstellen',
  noBranch: 'Wählen Sie mindestens eine Zweigstelle oder alle.',
  many: 'Viele Personen auf einmal ändern',
  table: 'Tabelle',
  tableHint:
    'Fügen Sie eine Tabelle oder CSV-Datei ein. Die erste Zeile nennt die Spalten: student_id und beliebige von name, email, group, card. Eine leere Zelle ändert nichts, ein Bindestrich (-) leert den Wert.',
  check: 'Tabelle prüfen',
  checked: (lines, changed) =>
    `${lines === 1 ? '1 Zeile ist' : `${lines} Zeilen sind`} richtig. ${changed === 0 ? 'Nichts ändert sich.' : changed === 1 ? '1 Person ändert sich.' : `${changed} Personen ändern sich.`}`,
  apply: (n) => (n === 1 ? '1 Person ändern' : `${n} Personen ändern`),
  changed: (n) => (n === 1 ? '1 Person wurde geändert.' : `${n} Personen wurden geändert.`),
  faults: (n) =>
    n === 1
      ? 'Eine Zeile hat einen Fehler. Nichts wurde geändert.'
      : `${n} Zeilen haben Fehler. Nichts wurde geändert.`,
  line: (n) => `Zeile ${n}`,
  lineFault: {
    header: 'die erste Zeile muss die Spalten nennen, mit student_id und nur bekannten Namen',
    columns: 'mehr Zellen als Spalten',
    id: 'die Matrikelnummer fehlt',
    twice: 'diese Matrikelnummer steht zweimal da',
  },
}

import type { scan as English } from '../en/scan.ts'

export const scan: typeof English = {
  title: 'Einchecken',
  intro: 'Scannen Sie den Code eines Bildschirms in der Bibliothek oder den auf dem Schild eines Platzes.',
  open: 'Kamera öffnen',
  stop: 'Kamera beenden',
  starting: 'Die Kamera startet…',
  aim: 'Halten Sie den Code vor die Kamera.',
  picture: 'Bild der Kamera',
  problem: {
    refused:
      'Die Seite darf die Kamera nicht verwenden. Erlauben Sie es in den Einstellungen des Browsers, oder tippen Sie die Ziffern ein.',
    missing:
      'Dieses Gerät hat keine Kamera, die die Seite verwenden kann. Tippen Sie die Ziffern vom Bildschirm ein.',
    busy: 'Die Kamera startet nicht. Vielleicht verwendet sie eine andere App. Schließen Sie diese, oder tippen Sie die Ziffern ein.',
    insecure:
      'Diese Seite hat keine sichere Verbindung. Deshalb gibt ihr der Browser die Kamera nicht. Tippen Sie die Ziffern vom Bildschirm ein.',
  },
  digitsAfterSignIn: 'Die Ziffern eines Bildschirms können Sie eintippen, sobald Sie angemeldet sind.',
  typeCode: 'Code eines Platzschilds eintippen',
  code: 'Code',
  codeHint: '31 Buchstaben und Ziffern.',
  use: 'Weiter',
  foreign: 'Das ist kein Code der Bibliothek.',
  wrongSeat: (seat) => `Das ist das Schild von Platz ${seat}. Scannen Sie das Schild Ihres eigenen Platzes.`,
  haveLabel: 'Schild des Platzes',
  haveScreen: 'Code des Bildschirms',
  signIn: 'Melden Sie sich an, um einzuchecken',
  signInDigits:
    'Die Ziffern wechseln alle 15 Sekunden. Melden Sie sich zuerst an, und tippen Sie dann die ein, die der Bildschirm zeigt.',
  signInScreen: (screen) => `Sie sind am Bildschirm „${screen}“. Melden Sie sich an, um einzuchecken.`,
  signInKept: 'Der Scan gilt drei Minuten.',
  signInSitDown: 'Melden Sie sich an, um sich zu setzen.',
  signInTaken: 'Wenn es Ihre Reservierung ist, melden Sie sich an, um einzuchecken.',
  choose: 'Welche Reservierung möchten Sie einchecken?',
  nowLabel: (seat) => `Scannen Sie jetzt das Schild von Platz ${seat}`,
  nowLabelText: 'Der Code ist am Platz. Die Bibliothek möchte wissen, dass Sie dort sind.',
  nowScreen: (seat) => `Scannen Sie für Platz ${seat} den Code eines Bildschirms`,
  nowScreenText: 'Bildschirme sind am Eingang und in den Lesesälen. Der Code wechselt alle 15 Sekunden.',
  done: 'Sie sind eingecheckt',
  already: 'Sie sind schon eingecheckt',
  ended: 'Diese Reservierung ist beendet.',
  none: (branch) =>
    branch === ''
      ? 'Sie haben jetzt keine Reservierung'
      : `Sie haben hier jetzt keine Reservierung (${branch})`,
  early: (seat) => `Platz ${seat} kann jetzt nicht eingecheckt werden`,
  again: 'Anderen Code scannen',
  free: 'Frei',
  taken: 'Belegt',
  outOfService: 'Außer Betrieb',
  howLong: 'Wie lange möchten Sie bleiben?',
  sitDown: (end) => `Bis ${end} hier sitzen`,
  thenScreen: 'Danach scannen Sie den Code eines Bildschirms, um einzuchecken.',
  thenDesk: 'Danach checkt Sie die Theke ein.',
  tooShort: (time) => `Der Platz ist nur bis ${time} frei. Das ist zu kurz für eine Reservierung.`,
  comeBack: 'Sie haben diesen Platz reserviert, aber zum Einchecken ist es noch zu früh.',
  freeAgain: (time) => `Er ist ab ${time} wieder frei.`,
  freeSeats: 'Freien Platz finden',
  later: 'Für später reservieren',
  otherSeat: (seat) => `Sie haben jetzt eine Reservierung für Platz ${seat}.`,
}

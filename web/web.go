// Package web holds the web client as the browser gets it.
//
// The files in dist are built from the sources beside them and committed, so that a build of the
// server needs no Node. A file of a type that can be compressed has two compressed copies beside it,
// NAME.br and NAME.gz. A file in assets has the hash of its content in its name, such as
// main-ABCDEFGH.js: its content never changes.
package web

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var files embed.FS

// Dist returns the files in dist. index.html is the page.
func Dist() fs.FS {
	dist, err := fs.Sub(files, "dist")
	if err != nil { // never: the directory is a part of the program
		panic(err)
	}
	return dist
}

package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// build tells how the binary was built.
type build struct {
	version   string // version of the module, such as v1.2.0; "(devel)" if it has none
	revision  string // commit, with "+dirty" if files were changed; "unknown" without version control
	goVersion string
}

// thisBuild returns the build of this binary.
func thisBuild() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return buildOf(info)
}

func buildOf(info *debug.BuildInfo) build {
	b := build{
		version:   cmp.Or(info.Main.Version, "(devel)"),
		revision:  "unknown", // deploy/Dockerfile builds without .git
		goVersion: runtime.Version(),
	}
	modified := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.revision = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if modified {
		b.revision += "+dirty"
	}
	return b
}

type versionCommand struct{}

// Run prints how the binary was built.
func (versionCommand) Run(out io.Writer) error {
	b := thisBuild()
	fmt.Fprintf(out, "dlsms %s, revision %s, %s\n", b.version, b.revision, b.goVersion)
	return nil
}

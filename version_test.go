package main

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersionComesFromBuildInfo(t *testing.T) {
	t.Parallel()
	out, err := runCommand(t, "version")
	if err != nil || !strings.HasPrefix(out, "dlsms ") || !strings.HasSuffix(out, ", "+runtime.Version()+"\n") {
		t.Errorf("%q, %v", out, err)
	}
	released := &debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.0"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0a1b"}, {Key: "vcs.modified", Value: "false"}},
	}
	changed := &debug.BuildInfo{
		Settings: []debug.BuildSetting{{Key: "vcs.modified", Value: "true"}, {Key: "vcs.revision", Value: "0a1b"}},
	}
	for want, info := range map[build]*debug.BuildInfo{
		{"v1.2.0", "0a1b", runtime.Version()}:        released,
		{"(devel)", "0a1b+dirty", runtime.Version()}: changed,
		{"(devel)", "unknown", runtime.Version()}:    {},
	} {
		if got := buildOf(info); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

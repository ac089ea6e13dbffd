package main

import (
	"io"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"
)

// TestStateSurvivesPowerCut: the directories of the first pin are on the disk when it is.
func TestStateSurvivesPowerCut(t *testing.T) {
	d := memdisk.New()
	must(t, d.Mkdir("/home", 0o755))
	must(t, d.SyncDir("/"))
	a := &app{messages: newMessages(io.Discard), disk: d, stateDir: "/home/me/.local/state/encfsrun"}
	if a.pins() == nil {
		t.Fatal("no pins")
	}
	if _, err := d.Crash(memdisk.Lose, 0).Lstat(a.stateDir); err != nil {
		t.Errorf("after a power cut: %v", err)
	}
	// A run that was killed between mkdir and sync leaves that to the next.
	d = memdisk.New()
	must(t, d.Mkdir("/state", 0o700))
	a.disk, a.stateDir = d, "/state"
	a.pins()
	if _, err := d.Crash(memdisk.Lose, 0).Lstat(a.stateDir); err != nil {
		t.Errorf("after a kill and a power cut: %v", err)
	}
}

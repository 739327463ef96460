package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// memoryHolds reports whether the text is in a process's memory. A sandbox's is
// shown to root alone; to others it holds nothing.
func memoryHolds(pid int, text string) bool {
	maps, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "maps"))
	if err != nil {
		return false
	}
	memory, err := os.Open(filepath.Join("/proc", itoa(pid), "mem"))
	if err != nil {
		return false
	}
	defer func() { _ = memory.Close() }()
	buffer := make([]byte, 1<<20)
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || mode[0] != 'r' || from < 0 {
			continue
		}
		if rangeHolds(memory, from, to, []byte(text), buffer) {
			return true
		}
	}
	return false
}

// rangeHolds looks from one place to another, a buffer at a time. What is not there
// cannot be read, and the next buffer may be.
func rangeHolds(memory io.ReaderAt, from, to int64, text, buffer []byte) bool {
	step := int64(len(buffer) - len(text)) // a text may lie across two buffers
	for ; from < to; from += step {
		n, _ := memory.ReadAt(buffer[:min(int64(len(buffer)), to-from)], from)
		if bytes.Contains(buffer[:n], text) {
			return true
		}
	}
	return false
}

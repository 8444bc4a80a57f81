package testbed

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Memory is what a process uses, in bytes.
type Memory struct {
	// Resident is what it holds now, Peak the most it ever held.
	Resident, Peak int64
}

// Memory reads the memory use of the running process (VmRSS and VmHWM of
// proc_pid_status(5)).
func (p *Process) Memory() (Memory, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return Memory{}, fmt.Errorf("memory of %s: %w", p.cfg.Name, err)
	}
	var m Memory
	for line := range bytes.Lines(status) {
		fields := bytes.Fields(line)
		if len(fields) != 3 {
			continue
		}
		var to *int64
		switch string(fields[0]) {
		case "VmRSS:":
			to = &m.Resident
		case "VmHWM:":
			to = &m.Peak
		default:
			continue
		}
		kib, err := strconv.ParseInt(string(fields[1]), 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("memory of %s: %s %w", p.cfg.Name, fields[0], err)
		}
		*to = kib << 10
	}
	if m.Resident == 0 {
		return Memory{}, fmt.Errorf("memory of %s: the process has ended", p.cfg.Name)
	}
	return m, nil
}

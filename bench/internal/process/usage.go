package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// tick is the unit of times in /proc (sysconf(_SC_CLK_TCK), 100 a second on
// Linux).
const tick = 10 * time.Millisecond

// CPU returns the processor time that the child has used, all threads, user and
// system.
func (p *Process) CPU() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("cpu of %s: %w", p.name, err)
	}
	used, err := parseStat(stat)
	if err != nil {
		return 0, fmt.Errorf("cpu of %s: %w", p.name, err)
	}
	return used, nil
}

// parseStat reads utime and stime, fields 14 and 15 of proc_pid_stat(5). The
// second field is the program's name, in which everything may stand.
func parseStat(stat []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(stat, ')')
	fields := bytes.Fields(stat[end+1:])
	const utime = 14 - 3 // the first field after the name is the third
	if end < 0 || len(fields) <= utime+1 {
		return 0, errors.New("stat has too few fields")
	}
	var ticks uint64
	for _, f := range fields[utime : utime+2] {
		n, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// Resident returns the memory that the child holds now, in bytes.
func (p *Process) Resident() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("memory of %s: %w", p.name, err)
	}
	n, err := parseResident(status)
	if err != nil {
		return 0, fmt.Errorf("memory of %s: %w", p.name, err)
	}
	return n, nil
}

// parseResident reads VmRSS of proc_pid_status(5).
func parseResident(status []byte) (int64, error) {
	for line := range bytes.Lines(status) {
		fields := bytes.Fields(line)
		if len(fields) != 3 || string(fields[0]) != "VmRSS:" {
			continue
		}
		kib, err := strconv.ParseInt(string(fields[1]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("VmRSS: %w", err)
		}
		return kib << 10, nil
	}
	return 0, errors.New("status has no VmRSS: the process has ended")
}

// Settled returns the memory of the child once it no longer grows: when two
// looks, apart by interval, differ by less than one in a hundred, or after ten
// looks.
func (p *Process) Settled(ctx context.Context, interval time.Duration) (int64, error) {
	last, err := p.Resident()
	if err != nil {
		return 0, err
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for range 10 {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("memory of %s: %w", p.name, context.Cause(ctx))
		}
		now, err := p.Resident()
		if err != nil {
			return 0, err
		}
		if change := now - last; change < now/100 && change > -now/100 {
			return now, nil
		}
		last = now
	}
	return last, nil
}

package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Shutdown, which has to be on time.
var shutdowns = []attack{
	{name: "shutdown-unread", what: "Shutdown while 300 peers have calls with replies of 60 kB and read nothing", run: readsNothingMany, after: onTime, ends: true},
	{name: "shutdown-half", what: "Shutdown while peers have begun what they do not finish", run: halfCalls, after: onTime, ends: true},
	{name: "shutdown-openings", what: "Shutdown while there are openings and POSTs that do not go on", run: halfOpen, after: onTime, ends: true},
	{name: "shutdown-keyed", what: "Shutdown that cuts off keyed calls", run: keyedStayAnonymous, after: onTime, ends: true},
}

// late is how much later than its context a Shutdown may return.
const late = 500 * time.Millisecond // the machine may be busy

// onTime shuts the server down and looks at what is left.
func onTime(srv *process) error {
	const within = 400 * time.Millisecond
	answer, err := srv.ask("shutdown " + within.String())
	if err != nil {
		return err
	}
	ms, err := strconv.Atoi(answer)
	if err != nil {
		return err
	}
	s, err := srv.stats()
	if took := time.Duration(ms) * time.Millisecond; took > within+late {
		err = errors.Join(err, fmt.Errorf("shutdown within %v returned after %v", within, took))
	}
	if s.Ledger != 0 {
		err = errors.Join(err, fmt.Errorf("ledger: %d bytes after Shutdown", s.Ledger))
	}
	if s.Heap > 16<<20 {
		err = errors.Join(err, fmt.Errorf("heap: %s after Shutdown", megabytes(int64(s.Heap))))
	}
	return err
}

func readsNothingMany(a *arena) error {
	a.crowd(a.size(300, 40), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		return s.send(s.calls(a.size(200, 100), "big", 0, "60000")...)
	})
	return nil
}

func halfOpen(a *arena) error {
	a.crowd(a.size(300, 60), func(i int) error {
		if i%2 == 0 {
			_, err := a.post(almost, text(1<<20))
			return err
		}
		s, err := a.upgrade(binaryJSON, nil)
		if err != nil {
			return err
		}
		return s.part(true, s.op, 60<<10, []byte(text(30<<10)))
	})
	return nil
}

func keyedStayAnonymous(a *arena) error {
	a.crowd(a.size(50, 10), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		s.obey()
		return s.send(s.keyedCalls(20, 100_000, false)...)
	})
	return nil
}

// Package measure runs the trials: what is measured, at which size, and in which
// order. Every round runs each trial for each subject, one right after the other,
// and every second round turns the order of subjects round, so that whatever else
// the machine does meets all of them alike.
package measure

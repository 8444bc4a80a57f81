//go:build !race

package frames

// raceDetector tells that pools are emptied at random.
const raceDetector = false

// Package metrics is what the daemon counts as it happens, in Prometheus' form. What
// can be read at any time (how many workers there are) the root reads when it is asked.
//
// Every label has a closed set of values, which is known when [New] is called, and each
// of its series is there from the start. What comes from a caller, a worker or a model
// finds its place in the set or counts as [Other]: nobody outside can make a series.
//
// Histograms are native ones (resolution about 10 %), with classic buckets beside them
// for whoever scrapes text. All methods are safe for concurrent use, allocate nothing,
// and do nothing on a nil *Metrics.
package metrics

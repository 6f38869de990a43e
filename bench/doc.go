// Package bench measures what the program costs those who run it: time, CPU, memory, fsyncs and DNS updates of the real
// binary, beside the bare protocol in the same run, and the daemon at rest with 20,000 certificates. It leaves the speed
// of single functions to the benchmarks beside them.
//
// "make bench" runs it; ROUNDS=N says how often each comparison is made. Every table gives the best of all rounds and
// the median: on a machine that does other things too, the best is nearer to the truth.
//
// States are written to a new ext4 of their own, which root can mount, or below DISK=DIR. Without root they are below
// /var/tmp, where figures depend on what was there before: an ext4 without a journal doesn't use the inodes of removed
// files again for some minutes, and looks for others beside them at up to a millisecond of CPU each. After tests that made
// and removed thousands of files there, the program needs three times as long.
//
// "make bench PROFILE=DIR" builds the binary with a profiler around its main function and writes a CPU and a heap
// profile of each of its runs into DIR, with the binary, for "go tool pprof". The figures of such a run count for nothing.
package bench

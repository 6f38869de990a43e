package main

import (
	"os"
	"runtime/pprof"
)

// profiled is run between two profiles: of the CPU from its first moment on, and of the heap at its end. The arguments
// are -c, the path of the configuration, and then the command.
func profiled(args []string) int {
	cpu := profile(args[2] + "-*.cpu")
	if err := pprof.StartCPUProfile(cpu); err != nil {
		panic(err)
	}
	status := run(args)
	pprof.StopCPUProfile()
	if err := pprof.Lookup("heap").WriteTo(profile(args[2]+"-*.heap"), 0); err != nil {
		panic(err)
	}
	return status
}

func profile(pattern string) *os.File {
	f, err := os.CreateTemp(os.Getenv("AUTOCERTD_PROFILE"), pattern)
	if err != nil {
		panic(err)
	}
	return f
}

package stack

// ProgramName exports programName, which returns the name of the program that runs as a process id.
// Tests use it to check that a process has ended.
var ProgramName = programName

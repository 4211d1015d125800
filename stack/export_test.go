package stack

// ProgramName lets tests check whether a process has ended.
var ProgramName = programName

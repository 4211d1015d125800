package stack

// ProgramOf is for the tests, which look whether a process is gone.
var ProgramOf = programOf

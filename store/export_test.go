package store

// CheckSession is for tests.
var CheckSession = checkSession

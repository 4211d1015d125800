// Package telemetry shows operators the state of a replica: logs, traces, metrics and the admin
// port.
//
// The package imports no other package of the project, so every package may use it.
// The names of metrics are a contract with dashboards and alerts: they never change.
package telemetry

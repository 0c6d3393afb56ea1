package monitoring

// pending are metrics that are named here before the exporter's table has them.
var pending []string

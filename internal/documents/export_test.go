package documents

// Decode reads a bucket's value.
var Decode = open

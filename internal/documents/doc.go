// Package documents is where a node's documents come from: a folder, and, where the
// Node document says so, a bundle that people published through NATS.
//
// [Publish] signs a bundle with the authority's key and puts it into a JetStream
// key-value bucket. A [Source] watches the folder and the bucket, and tells of each
// set that loads whole. Of one that doesn't nothing is taken: the last good one
// stays, and so it does when the bucket is emptied, deleted or out of reach. Being able to
// write to the bucket gives nobody a say: a bundle counts only when the authority
// signed it, and when it is newer than the one before.
//
// The package knows what documents are called and whether they load (package policy), and
// nothing of what is done with them.
package documents

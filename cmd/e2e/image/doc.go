// Package image makes container images without a registry or a daemon: layers
// from files, and the OCI image layout that containerd imports, as one tar.
//
// It also reads the final stages of a Dockerfile, the few instructions that
// place built programs into an empty image, and refuses every other: an image
// that differs from the one `docker build` makes would test nothing.
//
// It starts no process and needs no privilege, save that to read the files of a
// tree with their owners. Nothing is kept in memory that grows with a layer. A
// layer depends only on its entries: same entries, same digest.
//
// To support one more instruction, add a case to (*parser).instruction.
package image

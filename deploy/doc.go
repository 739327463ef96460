// Package deploy holds what carrel is installed with: units, package, container recipe.
// Its tests hold them against systemd, dpkg and docs/install.md; there is no other code.
package deploy

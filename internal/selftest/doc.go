// Package selftest puts throw-away sandboxes under attack, with every row of package
// attack, and judges: what `carrel doctor --attack` prints, what SANDBOX_SELF_TEST
// looks at before a daemon serves, and what the gate's own tests hold.
//
//	controls      attacker attack-control ID…      outside: each must succeed
//	tool tier     worker ──exec──▶ attacker attack-row ID     a command of an agent
//	worker tier   attacker init                    in the worker's own place
//
// As root both tiers are tried in a sandbox that was made for its user and in one
// that waited warm: they have different host uids and mounts.
package selftest

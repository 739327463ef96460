package workspace

// Quota is what the file system under a base directory can do to hold each user
// to a limit of disk space.
type Quota struct {
	// IsHard tells that the kernel refuses to write past the limit. Else it can
	// only be counted with [Dirs.DiskUsage] how much is there: a soft quota.
	IsHard bool
	// Detail names what there is, in a few words. Meaning tells what is at risk
	// with a soft quota, Fix how to get a hard one; both are empty for a hard one.
	Detail, Meaning, Fix string
}

// softQuota is the quota of a base directory whose file system gives none.
func softQuota(why, fix string) Quota {
	return Quota{
		Detail: "soft: " + why,
		Meaning: "usage is only counted while runs go: one that writes past SANDBOX_DISK_QUOTA is stopped some time after; " +
			"files that are deleted and still open are not seen",
		Fix: fix,
	}
}

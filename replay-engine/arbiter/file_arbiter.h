// The arbiter on storage that both hosts share. Generation N of the path P is the file P.N; link(2)
// makes it, which is atomic and fails where the file exists, also on NFS. A file is whole before
// it gets its name, and none is ever removed: whoever comes late always finds what came before.
#pragma once

#include <memory>
#include <string>

#include "replay-engine/arbiter/arbiter.h"
#include "replay-engine/arbiter/file_calls.h"

namespace us::replay {

// Its calls wait for the storage for as long as that takes. Precondition: usable names in `options`
// and a path that names a file.
std::unique_ptr<Arbiter> make_file_arbiter(const std::string& path, const ArbiterOptions& options,
                                           std::shared_ptr<FileCalls> calls);

}  // namespace us::replay

// Standard input, output and error of a program, whatever state they come in.
#pragma once

namespace mimo {

// First in main. A file that is opened later never becomes descriptor 0, 1 or 2: where one of them is closed
// it becomes /dev/null. A pipe whose reader has gone, and a file at its limit (ulimit -f), are errors of the
// write, no signals.
void prepare_streams();

// Last in a command whose output is what it was asked for: `status`, or 1 with a message where standard
// output took not all of it.
int all_written(int status);

}  // namespace mimo

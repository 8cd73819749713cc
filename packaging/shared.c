/* The shared library is made of the layers' archives alone; CMake wants a source file. */
typedef int kn_shared_is_of_archives;

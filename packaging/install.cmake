# Install rules, the embedding library, the Debian package. Included by the top CMakeLists.txt.
include(GNUInstallDirs)

# libkinora: every layer in one archive, or one shared object that shows nothing but kinora.h.
set(layers io compute attention text vae dit pipeline)
set(objects "")
foreach(l ${layers})
  list(APPEND objects $<TARGET_OBJECTS:kn_${l}>)
  if(TARGET kn_${l}_sm90)
    list(APPEND objects $<TARGET_OBJECTS:kn_${l}_sm90>)
  endif()
endforeach()
add_library(kinora_shared SHARED packaging/shared.c)
target_link_options(kinora_shared PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/packaging/kinora.map)
if(NOT KN_SANITIZE) # a sanitizer's functions are found when a program is linked
  target_link_options(kinora_shared PRIVATE -Wl,--no-undefined)
endif()
target_link_libraries(kinora_shared PRIVATE -Wl,--whole-archive kn_pipeline -Wl,--no-whole-archive)
set_target_properties(kinora_shared PROPERTIES OUTPUT_NAME kinora VERSION ${PROJECT_VERSION}
                      SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
                      LINK_DEPENDS ${CMAKE_SOURCE_DIR}/packaging/kinora.map)
add_library(kinora_static STATIC ${objects})
set_target_properties(kinora_static PROPERTIES OUTPUT_NAME kinora LINKER_LANGUAGE C)

# The .pc file finds its tree from where it lies, so that an installed tree may be moved.
file(RELATIVE_PATH KN_PC_UP /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
# Direct dependencies only: linking statically means libkinora.a, with the system's shared libraries.
string(JOIN " " KN_PC_PRIVATE ${DNNL_LIBRARY} ${PNG_LIBRARIES} ${JANSSON_LDFLAGS} ${YAML_LDFLAGS} ${LIBAV_LDFLAGS} -lm -pthread)
if(KN_HAVE_CUDA)
  get_target_property(cudart CUDA::cudart_static IMPORTED_LOCATION)
  string(APPEND KN_PC_PRIVATE " ${cudart} -lstdc++ -lrt -ldl")
endif()
configure_file(packaging/kinora.pc.in ${CMAKE_BINARY_DIR}/kinora.pc @ONLY)

# The man page and the completions are printed by the program itself.
set(generated "")
foreach(file kinora.1 kinora.bash _kinora kinora.fish)
  set(arguments --completion bash)
  if(file STREQUAL "kinora.1")
    set(arguments --man)
  elseif(file STREQUAL "_kinora")
    set(arguments --completion zsh)
  elseif(file STREQUAL "kinora.fish")
    set(arguments --completion fish)
  endif()
  add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/share/${file}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/share
    COMMAND kinora help ${arguments} > ${CMAKE_BINARY_DIR}/share/${file} DEPENDS kinora VERBATIM)
  list(APPEND generated ${CMAKE_BINARY_DIR}/share/${file})
endforeach()
add_custom_target(share ALL DEPENDS ${generated})

install(TARGETS kinora RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS kinora_shared kinora_static LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES pipeline/kinora.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${CMAKE_BINARY_DIR}/kinora.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${CMAKE_BINARY_DIR}/share/kinora.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${CMAKE_BINARY_DIR}/share/kinora.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME kinora)
install(FILES ${CMAKE_BINARY_DIR}/share/_kinora DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${CMAKE_BINARY_DIR}/share/kinora.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(DIRECTORY demo/model DESTINATION ${CMAKE_INSTALL_DATADIR}/kinora/demo)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md" PATTERN "*.png")
install(FILES README.md CHANGELOG.md LICENSE examples/embed.c DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(CPACK_PACKAGE_NAME kinora)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "Kinora maintainers <maintainers@kinora.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION video)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_STRIP_FILES ON)
include(CPack)
